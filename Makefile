# mq: message queues in PostgreSQL. `make && make install` with PGXS;
# another server than the first in PATH: make PG_CONFIG=/path/to/pg_config

EXTENSION = mq
MODULE_big = mq
DATA = $(wildcard sql/*.sql)
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
PGFILEDESC = "mq - message queues"

# The server's headers count as system headers, so that the warnings below
# are about this code only; the signatures of callbacks and of SQL functions
# are the server's too, so a parameter may stay unused. Hidden by default:
# libc owns names like mq_send.
PG_CPPFLAGS = -isystem $(shell $(PG_CONFIG) --includedir-server)
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Werror=implicit-function-declaration -fvisibility=hidden -ffile-prefix-map=$(CURDIR)=.

# Bitcode would let the server's JIT inline code whose symbols are hidden.
override with_llvm = no

# Tests need a running server with the library preloaded: tools/test starts one.
REGRESS = $(patsubst test/sql/%.sql,%,$(sort $(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --load-extension=mq
ISOLATION = $(patsubst test/specs/%.spec,%,$(sort $(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=. --load-extension=mq
TAP_TESTS = 1
PROVE_TESTS = $(sort $(wildcard test/t/*.pl))
EXTRA_CLEAN = results regression.diffs regression.out tmp_check

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS does not track headers: any of them changed, all is built again.
$(OBJS): $(wildcard src/*.h) Makefile

# Both compilers, every warning an error, in a copy of the sources.
STRICT_CC = gcc clang
STRICT_FLAGS_clang = -Wno-unknown-warning-option -Wno-ignored-optimization-argument

.PHONY: strict $(addprefix strict-,$(STRICT_CC)) list-tests
strict: $(addprefix strict-,$(STRICT_CC))

$(addprefix strict-,$(STRICT_CC)): strict-%:
	@command -v $* >/dev/null || { echo "make strict: $* is not installed" >&2; exit 1; }
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	mkdir "$$dir/src"; cp src/*.c src/*.h "$$dir/src"; cp Makefile "$$dir"; \
	echo "strict: $* -Wall -Wextra -Werror"; \
	$(MAKE) --no-print-directory -s -C "$$dir" PG_CONFIG='$(PG_CONFIG)' CC=$* COPT='-Werror $(STRICT_FLAGS_$*)' mq.so

# What installcheck runs, for tools/check-scheduled.
list-tests:
	@printf '%s\n' $(patsubst %,test/sql/%.sql,$(REGRESS)) $(patsubst %,test/specs/%.spec,$(ISOLATION)) $(PROVE_TESTS)
