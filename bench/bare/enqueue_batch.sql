INSERT INTO bare (body) SELECT unnest(:bodies::jsonb[]);
