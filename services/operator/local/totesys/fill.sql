-- Two years of a wholesaler's business. Set before: totesys.orders (number of sales orders) and totesys.until (the end of the two
-- years, UTC without a zone); random() is seeded, so equal seeds give equal rows. Ids come from the sequences, in order of time.

CREATE OR REPLACE FUNCTION pg_temp.one_of(VARIADIC words text[]) RETURNS text LANGUAGE sql VOLATILE
RETURN words[1 + floor(random() * cardinality(words))::int];

CREATE OR REPLACE FUNCTION pg_temp.up_to(most int) RETURNS int LANGUAGE sql VOLATILE
RETURN 1 + floor(random() * most)::int;

CREATE OR REPLACE FUNCTION pg_temp.days_after(day timestamp, most int) RETURNS text LANGUAGE sql VOLATILE
RETURN to_char(day + pg_temp.up_to(most) * interval '1 day', 'YYYY-MM-DD');

-- So many moments of the working days' ten hours, ascending, each with the time of a change: for 30 % of them later.
CREATE OR REPLACE FUNCTION pg_temp.placed(orders int) RETURNS TABLE (created timestamp, updated timestamp) LANGUAGE sql VOLATILE
AS $$
    SELECT created, least(created + CASE WHEN random() < 0.3 THEN random() * interval '30 days' ELSE '0' END,
                          until - interval '1 ms')
    FROM (SELECT until, date_trunc('ms', until - interval '730 days' + floor(day) * interval '1 day'
                                   + interval '8 h' + (day - floor(day)) * interval '10 h') AS created
          FROM (SELECT current_setting('totesys.until')::timestamp AS until, (number - random()) * 730 / orders AS day
                FROM generate_series(1, orders) AS number) AS moment) AS placed
$$;

-- Adding a foreign key checks all rows in one join; keeping it looks each row up, which takes several times as long.
CREATE TEMPORARY TABLE foreign_key ON COMMIT DROP AS
SELECT conrelid::regclass AS owner, conname AS name, pg_get_constraintdef(oid) AS definition
FROM pg_constraint WHERE contype = 'f' AND connamespace = current_schema()::regnamespace ORDER BY conrelid::regclass::text, conname;
DO $$ DECLARE removed record; BEGIN
    FOR removed IN SELECT * FROM foreign_key LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', removed.owner, removed.name);
    END LOOP;
END $$;

-- The small tables keep their real sizes, and were there when the business opened; a quarter of their rows was corrected later.
CREATE TEMPORARY TABLE founded ON COMMIT DROP AS
SELECT number, created, created + CASE WHEN random() < 0.25 THEN random() * interval '115 days' ELSE '0' END AS updated
FROM (SELECT number, current_setting('totesys.until')::timestamp - interval '730 days' + random() * interval '2 h' AS created
      FROM generate_series(1, 473) AS number) AS birth;

INSERT INTO currency (currency_code, created_at, last_updated)
SELECT (ARRAY['GBP', 'USD', 'EUR'])[number], created, updated FROM founded WHERE number <= 3;

INSERT INTO payment_type (payment_type_name, created_at, last_updated)
SELECT (enum_range(NULL::"PaymentTypeName"))[number], created, updated FROM founded WHERE number <= 4;

-- One has no location and one no manager: the warehouse must distinguish an absent text from an empty one.
INSERT INTO department (department_name, location, manager, created_at, last_updated)
SELECT name, location, manager, created, updated
FROM founded JOIN (VALUES
    (1, 'Sales', 'Manchester', 'Imogen Hartley'),
    (2, 'Purchasing', 'Manchester', 'Tomasz Wójcik'),
    (3, 'Production', 'Leeds', 'Grace Adeyemi'),
    (4, 'Dispatch', 'Leeds', 'Owen Pritchard'),
    (5, 'Finance', 'Manchester', 'Beatriz Gonçalves'),
    (6, 'Facilities', 'Manchester', NULL),
    (7, 'Communications', NULL, 'Niamh O''Sullivan'),
    (8, 'HR', 'Sheffield', 'Jürgen Weiß')
) AS departments (number, name, location, manager) USING (number) ORDER BY number;

INSERT INTO design (design_name, file_location, file_name, created_at, last_updated)
SELECT name, pg_temp.one_of('/usr/share', '/opt/designs', '/home/user/dir', '/srv/studio/2025'),
       format('%s-%s.json', replace(lower(name), ' ', '-'), lpad(number::text, 5, '0')), created, updated
FROM (SELECT *, concat_ws(' ', pg_temp.one_of('Awesome', 'Elegant', 'Handmade', 'Modern', 'Refined', 'Rustic', 'Sleek', 'Tasty'),
                          pg_temp.one_of('Bronze', 'Concrete', 'Cotton', 'Granite', 'Oak', 'Recycled', 'Steel', 'Wooden'),
                          pg_temp.one_of('Bench', 'Chair', 'Clock', 'Gloves', 'Hat', 'Lamp', 'Shoes', 'Table')) AS name
      FROM founded) AS named;

-- The first three addresses and counterparties show each kind of an optional text: absent, empty, given.
INSERT INTO address (address_line_1, address_line_2, district, city, country, postal_code, phone, created_at, last_updated)
SELECT format('%s %s %s', pg_temp.up_to(999), pg_temp.one_of('Albert', 'Canal', 'Foundry', 'Mill', 'Orchard', 'Victoria'),
              pg_temp.one_of('Street', 'Road', 'Lane', 'Avenue', 'Terrace')),
       CASE number WHEN 1 THEN NULL WHEN 2 THEN '' WHEN 3 THEN 'Dock B'
                   ELSE pg_temp.one_of(NULL, NULL, '', 'Unit 4', 'Suite 12, 3rd floor', 'The Old Dairy', 'Gate 7') END,
       pg_temp.one_of(NULL, '', 'Bedfordshire', 'Cumbria', 'Kent', 'Neukölln', 'Strathclyde', 'Ørestad'),
       city, country, postal_code, format('0%s %s', 1000 + pg_temp.up_to(8999), lpad(pg_temp.up_to(999999)::text, 6, '0')),
       created, updated
FROM (SELECT *, pg_temp.up_to(8) AS place FROM founded WHERE number <= 30) AS founded JOIN (VALUES
    (1, 'Bristol', 'United Kingdom', 'BS1 5TR'),
    (2, 'Newcastle upon Tyne', 'United Kingdom', 'NE1 7RU'),
    (3, 'Portland', 'United States of America', '97209-3320'),
    (4, 'München', 'Germany', '80331'),
    (5, 'Łódź', 'Poland', '90-001'),
    (6, 'São Paulo', 'Brazil', '01310-100'),
    (7, 'København', 'Denmark', '1050'),
    (8, '大阪', 'Japan', '530-0001')
) AS towns (place, city, country, postal_code) USING (place) ORDER BY number;

CREATE OR REPLACE FUNCTION pg_temp.first_name() RETURNS text LANGUAGE sql VOLATILE
RETURN pg_temp.one_of('Amelia', 'Bartek', 'Chidi', 'Chloë', 'Dafydd', 'Elif', 'Fatima', 'George', 'Håkon', 'Isla', 'Jamal', 'Zoë');

CREATE OR REPLACE FUNCTION pg_temp.last_name() RETURNS text LANGUAGE sql VOLATILE
RETURN pg_temp.one_of('Ahmed', 'Bell', 'D''Arcy', 'Evans', 'García', 'Iqbal', 'Kowalski', 'Lindström', 'O''Brien', 'Quinn', 'Şahin');

INSERT INTO staff (first_name, last_name, department_id, email_address, created_at, last_updated)
SELECT first_name, last_name, 1 + number % 8, lower(format('%s.%s%s@totesys.example', first_name, last_name, number)), created, updated
FROM (SELECT *, pg_temp.first_name() AS first_name, pg_temp.last_name() AS last_name FROM founded WHERE number <= 20) AS named;

INSERT INTO counterparty (counterparty_legal_name, legal_address_id, commercial_contact, delivery_contact, created_at, last_updated)
SELECT concat_ws(' ', pg_temp.last_name(), pg_temp.one_of('Ltd', 'plc', 'and Sons', 'Group', 'LLC', 'GmbH & Co. KG', 'S.A.')),
       pg_temp.up_to(30),
       CASE number WHEN 1 THEN NULL WHEN 2 THEN '' WHEN 3 THEN 'Ólafur Þórsson' ELSE pg_temp.one_of(NULL, '', person, person) END,
       pg_temp.one_of(NULL, '', person, person), created, updated
FROM (SELECT *, concat_ws(' ', pg_temp.first_name(), pg_temp.last_name()) AS person FROM founded WHERE number <= 20) AS named;

-- The large tables grow with the number of sales orders, in the proportions of the real database.
INSERT INTO sales_order (design_id, staff_id, counterparty_id, units_sold, unit_price, currency_id, agreed_delivery_date,
                         agreed_payment_date, agreed_delivery_location_id, created_at, last_updated)
SELECT pg_temp.up_to(473), pg_temp.up_to(20), pg_temp.up_to(20), 999 + pg_temp.up_to(99000), (199 + pg_temp.up_to(200)) * 0.01,
       1 + width_bucket(random(), ARRAY[0.5, 0.8]), pg_temp.days_after(created, 14), pg_temp.days_after(created, 21),
       pg_temp.up_to(30), created, updated
FROM pg_temp.placed(current_setting('totesys.orders')::int);

INSERT INTO purchase_order (staff_id, counterparty_id, item_code, item_quantity, item_unit_price, currency_id, agreed_delivery_date,
                            agreed_payment_date, agreed_delivery_location_id, created_at, last_updated)
SELECT pg_temp.up_to(20), pg_temp.up_to(20),
       format('%s%s-%s', chr(64 + pg_temp.up_to(10)), lpad(pg_temp.up_to(999)::text, 3, '0'), pg_temp.one_of('BRO', 'COT', 'OAK')),
       pg_temp.up_to(1000), (99 + pg_temp.up_to(99900)) * 0.01,
       1 + width_bucket(random(), ARRAY[0.5, 0.8]), pg_temp.days_after(created, 14), pg_temp.days_after(created, 21),
       pg_temp.up_to(30), created, updated
FROM pg_temp.placed(round(current_setting('totesys.orders')::numeric * 4649 / 11187)::int);

-- One transaction and one payment for each order, numbered as the orders of both kinds came in.
INSERT INTO "transaction" (transaction_type, sales_order_id, purchase_order_id, created_at, last_updated)
SELECT type::"TransactionType", sales_order_id, purchase_order_id, created_at, created_at
FROM (SELECT 'SALE' AS type, sales_order_id, NULL::int AS purchase_order_id, created_at FROM sales_order
      UNION ALL SELECT 'PURCHASE', NULL, purchase_order_id, created_at FROM purchase_order) AS orders
ORDER BY created_at, sales_order_id, purchase_order_id;

INSERT INTO payment (transaction_id, counterparty_id, payment_amount, currency_id, payment_type_id, paid, payment_date,
                     company_ac_number, counterparty_ac_number, created_at, last_updated)
SELECT transaction_id, counterparty_id, amount, currency_id, payment_type_id + (random() < 0.03)::int, paid, payment_date,
       10000000 + pg_temp.up_to(89999999), 10000000 + pg_temp.up_to(89999999), created_at,
       CASE WHEN paid THEN payment_date::date + interval '8 h' + random() * interval '10 h' ELSE created_at END
FROM (SELECT transaction_id, "transaction".created_at,
             coalesce(sale.counterparty_id, purchase.counterparty_id) AS counterparty_id,
             coalesce(sale.currency_id, purchase.currency_id) AS currency_id,
             coalesce(units_sold * unit_price, item_quantity * item_unit_price) AS amount,
             CASE transaction_type WHEN 'SALE' THEN 1 ELSE 3 END AS payment_type_id,
             coalesce(sale.agreed_payment_date, purchase.agreed_payment_date) AS payment_date,
             coalesce(sale.agreed_payment_date, purchase.agreed_payment_date)::date < current_setting('totesys.until')::date AS paid
      FROM "transaction"
      LEFT JOIN sales_order AS sale USING (sales_order_id)
      LEFT JOIN purchase_order AS purchase USING (purchase_order_id)) AS charged
ORDER BY transaction_id;

DO $$ DECLARE restored record; BEGIN
    FOR restored IN SELECT * FROM foreign_key LOOP
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I %s', restored.owner, restored.name, restored.definition);
    END LOOP;
END $$;
