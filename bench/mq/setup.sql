SELECT mq.create_queue('bench');
