SELECT id, body FROM mq.dequeue('bench', auto_ack => true);
