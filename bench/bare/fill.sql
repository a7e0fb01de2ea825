-- 1,000 rows.
INSERT INTO bare (body) SELECT unnest(bodies) FROM payload;
