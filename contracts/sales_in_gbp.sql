-- Sales in pounds by the reference rates of the European Central Bank, one row for each day on which something was sold.
--
-- Run it in the schema of the star, as a role that may SELECT its tables and CREATE a view, once they exist.
--
-- An amount is converted through the euro at the latest rates on or before its day: there are none for weekends and holidays.
-- Sales without a rate are counted in sales_without_rate, and their amounts are not in amount_gbp.
-- Amounts are added up in their own currencies first, which is exact; each day is rounded once, to the penny, half away from
-- zero. A fact without `version` has one row for each key, so its table is read, whose index leads to the latest rate.
CREATE OR REPLACE VIEW sales_in_gbp AS
WITH sold AS (
    SELECT created_date AS day, currency_code AS currency, count(*) AS sales, sum(units_sold * unit_price) AS amount
    FROM fact_sales_order_current JOIN dim_currency USING (currency_id)
    GROUP BY created_date, currency_code
), converted AS (
    SELECT day, sales,
           CASE currency
               WHEN 'GBP' THEN amount
               WHEN 'EUR' THEN amount * gbp.per_euro
               ELSE amount * gbp.per_euro / own.per_euro
           END AS amount_gbp
    FROM sold
    LEFT JOIN LATERAL (
        SELECT per_euro FROM fact_exchange_rate
        WHERE currency = 'GBP' AND day <= sold.day AND per_euro IS NOT NULL AND _deleted_at IS NULL
        ORDER BY day DESC LIMIT 1
    ) AS gbp ON true
    LEFT JOIN LATERAL (
        SELECT per_euro FROM fact_exchange_rate
        WHERE currency = sold.currency AND day <= sold.day AND per_euro IS NOT NULL AND _deleted_at IS NULL
        ORDER BY day DESC LIMIT 1
    ) AS own ON true
)
SELECT day,
       sum(sales)::bigint AS sales,
       coalesce(sum(sales) FILTER (WHERE amount_gbp IS NULL), 0)::bigint AS sales_without_rate,
       round(sum(amount_gbp), 2) AS amount_gbp
FROM converted
GROUP BY day;
