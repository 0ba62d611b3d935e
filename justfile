# The one interface to work on the code; `./run RECIPE` installs what a recipe needs first.

set shell := ["sh", "-eu", "-c"]
set positional-arguments

# Cargo's profile for what is run: `just profile=release up`.
profile := "dev"
hawser := "--profile " + profile + " -p hawser --bin hawser"

tools := env("RUN_TOOLS", justfile_directory() / ".tools")
export PATH := tools / "bin:" + tools / "python/bin:" + env("PATH")

# What `./run` could not install, and where it reads what was skipped for that.
without := env("RUN_WITHOUT", "")
skipped := env("RUN_SKIPPED", "/dev/stderr")
buf := justfile_directory() / "e2e/node_modules/.bin/buf"

# These lie in modules of tests that are named after what they need.
unusable := (if without =~ "node" { "node|" } else { "" }) + (if without =~ "python" { "python|" } else { "" }) + (if without =~ "browser" { "browser|" } else { "" })
unusable_tests := "test(/(^|::)(" + unusable + "none)::/)"
usable := if unusable == "" { "" } else { "-E 'not " + unusable_tests + "'" }

[private]
default:
    @just --list --unsorted

# The whole path in a minute, against a simulated provider.
demo *args:
    @cargo build {{ hawser }}
    @cargo run --quiet {{ hawser }} -- demo "$@"

# Every service in one process, on a Postgres of its own.
up *args:
    @cargo build {{ hawser }}
    @cargo run --quiet {{ hawser }} -- up "$@"

# psql in the database that `up` has started.
db data=".hawser" *args:
    #!/usr/bin/env sh
    set -eu
    field() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' '{{ data }}/hawser.json'; }
    shift
    PGPASSWORD=$(cat "$(field database_password_file)") exec psql "$(field database_url)" "$@"

# Formats all code.
fmt:
    cargo fmt --all

# Everything that reads the code without running it.
lint: _shellcheck deny proto
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# All tests, or those that nextest's arguments select.
test *args: _examples _build _skipped
    cargo nextest run --workspace {{ usable }} "$@"

# The whole-system tests alone.
e2e *args: _build _skipped
    cargo nextest run --workspace -E 'package(e2e) - {{ unusable_tests }}' "$@"

# The rules of the tree: who depends on whom, who calls whom, what has its page.
tidy:
    cargo nextest run -p e2e --test tidy

# Kills `up` with SIGKILL at random moments, and looks for what was acknowledged.
crash kills="50": _build
    CRASH_KILLS={{ kills }} cargo nextest run --workspace --no-capture -E 'package(e2e) and test(/(^|::)crash::/)'

# Kills vaults in the middle of refreshes, and lets grants expire all at once. In the long form alone on the machine.
faults kills="1000" grants="10000": _build
    FAULT_KILLS={{ kills }} FAULT_GRANTS={{ grants }} cargo nextest run --workspace --no-capture -E 'package(token-vault) and binary(faults)'

# All measurements; results go to bench/results.
bench *args:
    cargo build --release --workspace --bins
    bench/run "$@"

# The measurements in short: answers are checked and counted, no time is judged.
bench-smoke:
    cargo build -p load -p token-vault --bins
    cargo nextest run -p load

# Licences, sources and bans of what we depend on; advisories where a database of them can be reached.
deny:
    #!/usr/bin/env sh
    set -eu
    if ! command -v cargo-deny >/dev/null; then
        echo 'cargo deny: no cargo-deny' >>'{{ skipped }}'
        exit
    fi
    cargo deny --log-level warn check --hide-inclusion-graph bans licenses sources
    if timeout 60 cargo deny --log-level off fetch db >/dev/null 2>&1; then
        cargo deny --log-level warn check --disable-fetch --hide-inclusion-graph advisories
    else
        echo 'cargo deny check advisories: no database of advisories can be reached' >>'{{ skipped }}'
    fi

# The contracts: style, and nothing broken since any of their last ten states.
proto:
    #!/usr/bin/env sh
    set -eu
    if ! [ -x '{{ buf }}' ]; then
        echo 'buf lint, buf breaking: no node packages' >>'{{ skipped }}'
        exit
    fi
    '{{ buf }}' lint proto
    states=$(git log --max-count 11 --format=%H -- proto 2>/dev/null || :)
    compared=0
    before=$(mktemp -d)
    trap 'rm -rf "$before"' EXIT
    for commit in $states; do
        rm -rf "$before/proto"
        git archive "$commit" proto | tar -x -C "$before"
        if diff -r "$before/proto" proto >/dev/null; then continue; fi
        '{{ buf }}' breaking proto --against "$before/proto"
        compared=$((compared + 1))
    done
    [ "$compared" -gt 0 ] || echo 'buf breaking: the history has no earlier state of proto' >>'{{ skipped }}'

_shellcheck:
    #!/usr/bin/env sh
    set -eu
    if command -v shellcheck >/dev/null; then
        shellcheck run .ci/run
    else
        echo 'shellcheck: not installed' >>'{{ skipped }}'
    fi

# What the documentation shows, where it shows any code: nextest does not run it.
_examples:
    #!/usr/bin/env sh
    set -eu
    shown=$(find crates services -name '*.rs' -path '*/src/*' -exec awk '
        FNR == 1 { open = 0 }
        /^ *\/\/[\/!] ```/ { open = !open; if (open && $2 ~ /^```(rust|no_run|should_panic)?$/) print FILENAME }' {} +)
    [ -z "$shown" ] || cargo test --quiet --workspace --doc

# The programs too: whole-system tests start them. The same features for all, so that nothing is built twice.
_build:
    cargo build --workspace --bins --tests

# Names each test that is left out.
_skipped:
    #!/usr/bin/env sh
    set -eu
    [ -z '{{ unusable }}' ] || cargo nextest list --workspace -E '{{ unusable_tests }}' --message-format oneline 2>/dev/null >>'{{ skipped }}'
