# What the processes of the torture share: a ledger file of their own, and a
# session that knows whether a statement's outcome is known.
#
# A ledger is a file of JSON lines, each written with one write and synced
# before its writer goes on.  Times are CLOCK_MONOTONIC, which all processes of
# a machine share.

package Ledger;

use strict;
use warnings;

use IO::Handle;
use JSON::PP;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

my $json = JSON::PP->new->canonical;

sub now { return sprintf('%.6f', clock_gettime(CLOCK_MONOTONIC)) + 0 }

sub new
{
	my ($class, $file) = @_;
	open my $fh, '>>', $file or die "$file: $!\n";
	return bless { fh => $fh }, $class;
}

# Writes one record, of kind k.
sub put
{
	my ($self, $k, %rec) = @_;
	my $line = $json->encode({ t => now(), %rec, k => $k }) . "\n";
	syswrite($self->{fh}, $line) == length $line or die "ledger: $!\n";
	$self->{fh}->sync or die "ledger: $!\n";
	return;
}

# A session of an ordinary driver, each with a name of its own.  A statement
# that fails dies with { state, text, lost, t0 }: lost says that the connection
# is gone, so that nobody knows what the server did.
package Session;

use strict;
use warnings;

use DBI;

my $count = 0;

sub new
{
	my ($class, $ledger, $who, $host, %set) = @_;
	my $name = $who . '.' . ++$count;
	my $dbh = DBI->connect("dbi:Pg:dbname=postgres;host=$host;port=5432;application_name=$name",
		'postgres', '',
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_server_prepare => 0 });
	my $self = bless { dbh => $dbh, name => $name, ledger => $ledger, alive => 1 }, $class;
	$ledger->put('session', s => $name, pid => $dbh->{pg_pid});
	$self->q("SET $_ = '$set{$_}'") for sort keys %set;
	return $self;
}

# Runs one statement, returns its rows.  When it was sent stands in t0.
sub q
{
	my ($self, $sql) = @_;
	my $rows = [];
	$self->{t0} = Ledger::now();
	return $rows if eval {
		if ($sql =~ /^(SELECT|WITH|INSERT .* RETURNING)\b/s)
		{
			$rows = $self->{dbh}->selectall_arrayref($sql);
		}
		else
		{
			$self->{dbh}->do($sql);
		}
		1;
	};
	my $t0 = $self->{t0};
	my %e = (state => $self->{dbh}->state, text => "$@", t0 => $t0);
	$e{lost} = $e{state} =~ /^(08|57P0[123])/ || !$self->{dbh}->ping ? 1 : 0;
	if ($e{lost})
	{
		$self->{ledger}->put('gone', s => $self->{name}, t0 => $t0);
		$self->{alive} = 0;
	}
	$self->{ledger}->put('error', s => $self->{name}, state => $e{state}, sql => substr($sql, 0, 60),
		text => substr($e{text}, 0, 160));
	die \%e;
}

# Whether a notification has come.
sub notified
{
	my ($self) = @_;
	my $n;
	return $n ? 1 : 0 if eval { $n = $self->{dbh}->pg_notifies; 1 };
	$self->{ledger}->put('gone', s => $self->{name});
	$self->{alive} = 0;
	die { lost => 1, state => '08006', text => "$@", t0 => Ledger::now() };
}

# Leaves, saying so first.
sub close
{
	my ($self) = @_;
	$self->{ledger}->put('end', s => $self->{name});
	$self->{alive} = 0;
	$self->{dbh}->disconnect;
	return;
}

1;
