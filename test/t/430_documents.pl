# What README.md and docs/ show can be typed, from their first line to the last,
# and so can the scripts in examples/.  A document says where it means an error:
# "-- ERROR:  …", as psql shows it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my $node = mq_node('main');

sub content
{
	my ($file) = @_;
	open my $in, '<:encoding(UTF-8)', "$top/$file" or die "$file: $!";
	local $/;
	return scalar <$in>;
}

# A database of its own, whose tables are the reader's.
sub fresh_database
{
	my ($db) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, q{
CREATE EXTENSION mq;
CREATE TABLE customer (id integer, name text);
CREATE TABLE shipped (item text)});
	return $db;
}

# What psql complains of, a line each.
sub complaints
{
	my ($db, $sql) = @_;
	my ($status, undef, $stderr) = $node->psql($db, $sql, on_error_stop => 0);
	is($status, 0, "$db: psql came to the end");
	return [ map { s/^psql:.*?:\d+: //r }
		  grep { /\b(?:ERROR|FATAL|PANIC):|\\gset|invalid command|WARNING:/ } split /\n/, $stderr ];
}

for my $document ('README.md', map { s{^\Q$top\E/}{}r } sort glob "$top/docs/*.md")
{
	my $sql = join "\n", content($document) =~ /^```sql\n(.*?)^```$/msg or next;
	my $announced = [ $sql =~ /^-- (ERROR: .*)$/mg ];
	my $db = fresh_database(lc($document =~ s/\W+/_/gr));

	$sql =~ s/^CREATE EXTENSION mq;$//m;		# README.md begins with what needs it
	is_deeply(complaints($db, $sql), $announced, "$document: all of it runs, with the errors it shows");
}

my @scripts = sort glob "$top/examples/*.sql";
cmp_ok(scalar @scripts, '>=', 4, 'there are examples');
for my $script (@scripts)
{
	my ($name) = $script =~ m{([^/]+)\.sql$};
	my $db = fresh_database("example_$name");

	is_deeply(complaints($db, content("examples/$name.sql")), [], "examples/$name.sql runs");
	is_deeply(complaints($db, content("examples/$name.sql")), [], "examples/$name.sql runs again");
}

done_testing();
