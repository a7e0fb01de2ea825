INSERT INTO bare (body) VALUES (:body);
