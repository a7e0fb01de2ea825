SELECT count(*) FROM mq.dequeue('bench', 1000, lease => '1 hour');
