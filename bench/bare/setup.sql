-- The bare table: what a queue needs at least, a key and a body.
CREATE TABLE bare (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body jsonb);
