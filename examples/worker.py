#!/usr/bin/env python3
"""A worker in Python with psycopg 3: three ways to consume one queue.

    pip install psycopg        (Debian: apt install python3-psycopg)
    python3 worker.py [transactional|lease|listen] [QUEUE]

The connection is libpq's: set PGHOST, PGUSER, PGDATABASE and so on. Stop it
with Ctrl-C: a message in work is given back.
"""

import select
import sys
import time

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb


def work(cur, message):
    """The application's own work; an exception means that it failed."""
    print(f"message {message.id}, attempt {message.attempt}: {message.body}")


def transactional(conn, queue):
    """Work and ack commit together; an exception rolls both back, and the
    attempt is counted. For work inside this database."""
    while True:
        try:
            with conn.transaction(), conn.cursor() as cur:
                cur.execute("SELECT * FROM mq.dequeue(%s, wait => '10 s')", (queue,))
                for message in cur.fetchall():
                    work(cur, message)
                    cur.execute("SELECT mq.ack(%s, %s, %s, strict => true)", (queue, message.id, message.receipt))
        except psycopg.OperationalError:
            raise  # the server is gone: start again from outside
        except Exception as error:
            print(f"rolled back: {error}", file=sys.stderr)


def take(conn, queue):
    """One batch on a lease, each message settled by itself; how many it was."""
    with conn.cursor() as cur:
        cur.execute("SELECT * FROM mq.dequeue(%s, 10, lease => '5 minutes')", (queue,))
        batch = cur.fetchall()
        for message in batch:
            args = (queue, message.id, message.receipt)
            try:
                work(cur, message)
            except Exception as error:
                cur.execute("SELECT mq.nack(%s, %s, %s, reason => %s)", (*args, str(error)))
            else:
                # False: the lease ended meanwhile and somebody else has it.
                if not cur.execute("SELECT mq.ack(%s, %s, %s)", args).fetchone()[0]:
                    print(f"message {message.id} took longer than its lease", file=sys.stderr)
    return len(batch)


def lease(conn, queue):
    """No transaction is open during the work. For calls to the world outside."""
    while True:
        # CALL mq.wait holds no snapshot, however long it waits.
        conn.execute("CALL mq.wait(%s, '1 minute')", (queue,))
        take(conn, queue)


def listen(conn, queue):
    """The client sleeps on its socket; one connection can listen to many queues."""
    notified = []
    conn.add_notify_handler(notified.append)
    conn.execute("SELECT mq.listen(%s)", (queue,))
    while True:
        notified.clear()
        while take(conn, queue):
            pass
        # One that came along with the last answer is read already: look again.
        if not notified:
            select.select([conn], [], [], 30)


def main():
    ways = {"transactional": transactional, "lease": lease, "listen": listen}
    way = sys.argv[1] if len(sys.argv) > 1 else "transactional"
    queue = sys.argv[2] if len(sys.argv) > 2 else "example_python"
    if way not in ways:
        sys.exit(__doc__)
    while True:
        try:
            # autocommit: a transaction is open only where one is asked for.
            with psycopg.connect(autocommit=True, row_factory=namedtuple_row) as conn:
                conn.execute("SELECT mq.create_queue(%s, if_not_exists => true)", (queue,))
                conn.execute("SELECT mq.enqueue(%s, %s)", (queue, Jsonb({"hello": way})))
                ways[way](conn, queue)
        except psycopg.OperationalError as error:
            print(f"{error}; again in a second", file=sys.stderr)
            time.sleep(1)
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
