SELECT mq.enqueue_batch('bench', :bodies);
