-- Counted, since the bare INSERT … SELECT sends no rows to the client either.
SELECT count(*) FROM mq.enqueue_batch('bench', :bodies);
