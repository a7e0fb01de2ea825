SELECT mq.enqueue('bench', :body);
