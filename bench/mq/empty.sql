SELECT * FROM mq.dequeue('bench');
