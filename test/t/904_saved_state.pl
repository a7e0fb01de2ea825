# What a shutdown saves belongs to that shutdown: the file of an earlier one, put in
# its place, is ignored, and so is one that was cut short or altered.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use File::Copy qw(copy);
use Test::More;

my $node = mq_node('main');
my $file = $node->data_dir . '/pg_stat/mq.state';
my $kept = $node->basedir . '/mq.state';
my $leased = q{SELECT count(*) FROM mq.in_flight};

$node->safe_psql('postgres', q{
SELECT mq.create_queue('q', lease => '1 hour', backoff => '0');
SELECT mq.enqueue_batch('q', '{1,2,3}');
SELECT count(*) FROM mq.dequeue('q', 3)});
$node->stop('fast');
ok(-s $file, 'a clean shutdown saves the state');
copy($file, $kept) or die "$kept: $!";
$node->start;
is($node->safe_psql('postgres', $leased), 3, '... the leases, too');

is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.in_flight WHERE mq.ack(queue, id, receipt)}), 3, 'all are acknowledged');
$node->safe_psql('postgres', q{SELECT mq.enqueue('q', '4'); CHECKPOINT});
$node->stop('fast');
copy($kept, $file) or die "$file: $!";
$node->start;
is($node->safe_psql('postgres', $leased), 0, 'the state of an earlier shutdown is ignored');
is($node->safe_psql('postgres', q{SELECT body, attempt FROM mq.dequeue('q', 10)}), '4|1', '... and what there is, delivered');

# As it was saved, but for one byte, and but for its end.
my $spoil = sub {
	my ($f, $size) = @_;
	sysseek $f, $size / 2, 0;
	sysread $f, my $byte, 1;
	sysseek $f, $size / 2, 0;
	syswrite $f, chr(ord($byte) ^ 1);
};
for my $case ([ 'one bit is wrong', $spoil ], [ 'its end is missing', sub { truncate $_[0], $_[1] - 1 } ])
{
	my ($name, $work) = @$case;

	is($node->safe_psql('postgres', $leased), 1, "$name: a message is leased");
	$node->stop('fast');
	open my $f, '+<:raw', $file or die "$file: $!";
	$work->($f, -s $file);
	close $f;
	$node->start;
	is($node->safe_psql('postgres', $leased), 0, "$name: ignored");
	is($node->safe_psql('postgres', q{SELECT body FROM mq.dequeue('q', 10)}), '4', "$name: delivered anew");
}

$node->stop;
done_testing();
