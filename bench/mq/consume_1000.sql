SELECT count(*) FROM mq.dequeue('bench', 1000, auto_ack => true);
