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

# Rows that the scanner reads off in a dialect, each three times so that its campaign is known: every set of options of
# src/case.rs (their numbers follow those of the presets), with numbers in four notations, behind semicolons.
write_rows() {
    for row in "c1;d;12${1}345;1${1}234;5${1}678${2}90;3" "c1;d;123${1}456;7;0${2}5;12" "c2;d;4000;350;1234${2}67;2${2}5" \
        "[12345];d;1;0;99999${2}99;8" "a campaign of words;d;99999999;12345678;12345678${2}9;1${1}000" "c1;d;1;;3${2}50;"; do
        printf '%s\n%s\n%s\r\n' "$row" "$row" "$row"
    done
}
for set in 052 053 054 055 056 057 060 061 062 063 064 065 066 067; do
    number=0
    for marks in ', .' '. ,' "' ." '  ,'; do
        number=$((number + 1))
        for target in chunks kernels resume segments; do
            {
                printf "\\006\\000\\000\\000\\000\\005\\$set\\000\\000\\000\\000"
                write_rows "${marks%??}" "${marks#??}"
            } > "corpus/$target/set_${set}_$number"
        done
    done
done

# Words that are the same as bytes and other words to the judge, in the columns of the currency and of what conversions count:
# with doubled quotes, and with a no-break space at the end of the 64 bytes that are compared. The header is that of meta_ads,
# with both columns. The last line makes the text long enough for the scanner.
x62=$(printf '%062d' 0)
nbsp=$(printf '\302\240')
while read -r name first second; do
    for target in chunks kernels resume segments; do
        {
            printf '\000\004\000\000\000\005\042\000\000\000\000'
            printf 'c,,1,2,3.5,4,%s\n' "$first" "$second"
            printf 'c,%070d\n' 0
        } > "corpus/$target/word_$name"
    done
done << EOF
quotes_1 """""x",k """x",k
quotes_2 E,"""""x" E,"""x"
space_1 ${x62}${nbsp}x,k ${x62}${nbsp},k
space_2 E,${x62}${nbsp}x E,${x62}${nbsp}
EOF

# For `restore`: the state of a tally that has read the text, in version 2, with four changes that mostly change nothing.
mkdir -p corpus/restore
for input in corpus/kernels/set_* corpus/kernels/google_ads_en corpus/kernels/meta_ads corpus/kernels/microsoft_ads; do
    {
        printf '\200\377\000\377\000\377\000\377\000'
        cat "$input"
    } > "corpus/restore/$(basename "$input")"
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
