#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether standard input is Prometheus' text format 0.0.4, and its histograms are histograms.

Prints NAME{labels} VALUE of what the arguments name (regular expressions); fails if one of them
matches nothing."""
import re
import sys

NAME = r'[a-zA-Z_:][a-zA-Z0-9_:]*'
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf'^({NAME})(?:\{{((?:{LABEL})(?:,{LABEL})*)?\}})? (\S+)$')


def fail(n, line, why):
    sys.exit(f'line {n}: {why}: {line}')


def main():
    text = sys.stdin.read()
    if not text.endswith('\n'):
        sys.exit('the last line has no end')
    types, closed, seen, current = {}, set(), {}, None
    histograms = {}
    for n, line in enumerate(text.split('\n')[:-1], 1):
        if line.startswith('# HELP ') or line.startswith('# TYPE '):
            kind, name, rest = line[2:].split(' ', 2)
            if not re.fullmatch(NAME, name) or not rest:
                fail(n, line, 'no name or nothing said of it')
            if name != current:
                if name in closed or name in types:
                    fail(n, line, 'the family was there before')
                if current:
                    closed.add(current)
                current = name
            if kind == 'TYPE':
                if name in types or rest not in ('counter', 'gauge', 'histogram'):
                    fail(n, line, 'typed twice, or no type')
                types[name] = rest
            continue
        m = SAMPLE.match(line)
        if not m:
            fail(n, line, 'no sample')
        name, labels, value = m.group(1), m.group(2) or '', m.group(3)
        try:
            number = float(value)
        except ValueError:
            fail(n, line, 'no number')
        base = name
        if current and types.get(current) == 'histogram':
            base = re.sub('_(bucket|count|sum)$', '', name)
        if base != current or current not in types:
            fail(n, line, 'not of the family that was announced')
        if types[current] == 'counter' and (not name.endswith('_total') or number < 0):
            fail(n, line, 'a counter is called _total and not negative')
        names = [p.split('=', 1)[0] for p in re.findall(LABEL, labels)]
        if len(names) != len(set(names)):
            fail(n, line, 'a label twice')
        if (name, labels) in seen:
            fail(n, line, 'a sample twice')
        seen[name, labels] = number
        if types[current] == 'histogram':
            rest = tuple(p for p in re.findall(LABEL, labels) if not p.startswith('le='))
            h = histograms.setdefault((base, rest), {'buckets': [], 'count': None, 'sum': None})
            le = [p for p in re.findall(LABEL, labels) if p.startswith('le=')]
            if name.endswith('_bucket'):
                h['buckets'].append((float(le[0][4:-1]), number))
            elif name.endswith('_count'):
                h['count'] = number
            elif name.endswith('_sum'):
                h['sum'] = number
    for (name, labels), h in histograms.items():
        b = h['buckets']
        if not b or b[-1][0] != float('inf') or b[-1][1] != h['count']:
            sys.exit(f'{name}{labels}: the last bucket is not +Inf, or not the count')
        if any(x[0] >= y[0] or x[1] > y[1] for x, y in zip(b, b[1:])):
            sys.exit(f'{name}{labels}: the buckets do not rise')
        # No less than if each value were as small as its bucket allows; nothing counted: 0.
        low = sum((y[1] - x[1]) * x[0] for x, y in zip(b, b[1:]))
        if h['sum'] is None or h['sum'] < low * 0.999999 or (h['count'] == 0) != (h['sum'] == 0):
            sys.exit(f'{name}{labels}: no sum, or none of these values: {h["sum"]}')
    if not types:
        sys.exit('there is nothing in it')
    for want in sys.argv[1:]:
        found = [(k, v) for k, v in seen.items() if re.search(want, f'{k[0]}{{{k[1]}}}')]
        if not found:
            sys.exit(f'nothing matches {want}')
        for (name, labels), value in found:
            print(f'{name}{{{labels}}} {value:.17g}')


main()
