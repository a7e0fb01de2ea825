-- Five of the exchange's 10,000 bindings match.
SELECT mq.publish('bench', 'order.eu.paid.17', :body);
