#!/usr/bin/env bash
# Five minutes with the demo data, which are made on first use: no data set and no GPU are needed.
#
#   bash examples/01_demo.sh                          further options go to the search: --trials 4 --epochs 3
set -euo pipefail

# Ten configurations, the weak ones stopped early, the best one trained again on all training videos.
python tune/search.py --name demo "$@"

# Where it stands; while it runs, from another terminal.
python tune/search.py --status demo

# The report again, for instance after an update: RUN/report/report.html, the same as Markdown, tables, figures.
python tune/report.py demo

# One trial again, without Ray: every digit is compared.
python tune/search.py --replay demo 00000

# Scores, violent segments and a timeline of every test video of a data folder. No labels are needed.
python -m macil demo demo-data
python -m macil score runs/demo demo-data --out demo-scores
