#!/bin/sh
# Makes corpora to start from. Texts are the inputs of the test cases and the reports of tests/exports. Before each are the
# eleven bytes of choices: "a header in the text, a comma, no other limits, the text as it is"; for a report, also the preset:
# 32 and its number, with the highest bit for a delimiter that is found out.
set -eu
cd "$(dirname "$0")"

# Writes the choices, with this dialect (three octal digits), and then the text.
with_choices() {
    printf "\\000\\007\\000\\000\\000\\005\\$1\\000\\000\\000\\000"
    cat
}

for target in chunks kernels reader resume segments; do
    mkdir -p "corpus/$target"
    for input in ../tests/cases/*/input.csv; do
        case=$(basename "$(dirname "$input")")
        with_choices 000 < "$input" > "corpus/$target/$case"
    done
done

for input in ../tests/exports/*.csv; do
    name=$(basename "$input" .csv)
    case $name in
        google_ads_api*) dialect=241 ;;
        google_ads_*) dialect=240 ;;
        meta_ads*) dialect=242 ;;
        microsoft_ads*) dialect=243 ;;
        dv360*) dialect=247 ;;
        *) echo "$input: this script knows no preset for it" >&2; exit 1 ;;
    esac
    case $name in
        *_excel) encoding=UTF-16 ;;
        *_resaved) encoding=WINDOWS-1252 ;;
        *) encoding=UTF-8 ;;
    esac
    for target in chunks kernels resume segments; do
        # A tally gets text without its byte-order mark.
        iconv -f "$encoding" -t UTF-8 "$input" | sed '1s/^\xef\xbb\xbf//' | with_choices "$dialect" > "corpus/$target/$name"
    done
done

mkdir -p corpus/options
number=0
while IFS= read -r value; do
    number=$((number + 1))
    printf '%s' "$value" > "corpus/options/$number"
done << 'EOF'
google_ads
campaign_id:Campaign ID|Campaign; spend=Cost,clicks: Clicks (a, b)
spend:a\|b|c\;d|e\\f,g:h
find
point
auto
space
decimal
strip
micros
clicks,conversions
Total:|Gesamt:
a\|b| none
none
blank_line
true
EOF
