SELECT id, body FROM mq.dequeue('bench', 100, auto_ack => true);
