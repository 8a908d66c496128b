-- What infra/local/databases.py makes on a laptop: a source that Starlift may read and nothing else. Run by the superuser, once.
CREATE ROLE totesys LOGIN PASSWORD 'local';
CREATE ROLE starlift_reader LOGIN PASSWORD 'local';
ALTER DATABASE totesys OWNER TO totesys;
REVOKE ALL ON DATABASE totesys FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT CONNECT ON DATABASE totesys TO starlift_reader;
GRANT USAGE ON SCHEMA public TO starlift_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE totesys IN SCHEMA public GRANT SELECT ON TABLES TO starlift_reader;
