#!/bin/sh
# Makes corpora to start from: the inputs of the test cases, behind the eight bytes of choices that mean "a header in the
# text, a comma, no other limits, the text as it is".
set -eu
cd "$(dirname "$0")"
for target in chunks kernels reader resume segments; do
    mkdir -p "corpus/$target"
    for input in ../tests/cases/*/input.csv; do
        case=$(basename "$(dirname "$input")")
        { printf '\000\007\000\000\000\005\000\000'; cat "$input"; } > "corpus/$target/$case"
    done
done
