SELECT m.id, m.body, mq.ack(m) FROM mq.dequeue('bench') m;
