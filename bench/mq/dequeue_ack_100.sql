SELECT m.id, m.body, mq.ack(m) FROM mq.dequeue('bench', 100) m;
