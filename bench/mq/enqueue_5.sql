-- What publish.sql comes to, by hand and in one round trip.
SELECT mq.enqueue('bench1', :body), mq.enqueue('bench2', :body), mq.enqueue('bench3', :body), mq.enqueue('bench4', :body),
       mq.enqueue('bench5', :body);
