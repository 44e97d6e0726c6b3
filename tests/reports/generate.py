#!/usr/bin/env python3
"""Writes data/ of this job: a small grid of two feeders, from 26 January to 2 April 2026. All values are plain numbers, so that
answers can be counted by hand. Local time is UTC+8."""
import gzip, json, datetime as D
Z = D.timezone(D.timedelta(hours=8))
U = D.timezone.utc
def t(m, d, h=0, mi=0, s=0): return D.datetime(2026, m, d, h, mi, s, tzinfo=Z)
def iso(x): return x.astimezone(U).strftime('%Y-%m-%dT%H:%M:%SZ')
def write(name, rows, key, tail=(), gz=False):
    rows = sorted(rows, key=lambda r: r[key])
    text = ''.join((json.dumps(r, separators=(',', ':')) if isinstance(r, dict) else r) + '\n' for r in rows + list(tail))
    if gz:
        with open('data/' + name + '.gz', 'wb') as f, gzip.GzipFile(fileobj=f, mode='wb', mtime=0) as g: g.write(text.encode())
    else: open('data/' + name, 'w').write(text)

DAY = D.timedelta(days=1)
first, powers, end = t(1, 26), t(2, 16), t(4, 2)
# Energy a day of each meter; C2 is a thief from Monday 9 March on.
def kwh(m, day):
    if m == 'C2': return 2 if day >= t(3, 9) else 10
    return {'C1': 12, 'C3': 8, 'C4': 6, 'D1': 20, 'D2': 10, 'U1': 960,
            'G1': 38, 'G2': 31, 'H1': 1040, 'H2': 32}[m]
# Mean kW in the six hours from 0, 6, 12, 18 as parts of the daily energy (in eighths of kWh/6h): houses in the evening, the works by day.
SHAPE = {'C': (1, 2, 1, 4), 'D': (1, 2, 1, 4), 'U': (1, 3, 3, 1), 'G': (1, 2, 1, 4), 'H': (1, 2, 2, 3)}
readings = []
for m in ['C1', 'C2', 'C3', 'C4', 'D1', 'D2', 'U1', 'G1', 'G2', 'H1', 'H2']:
    reg, day = 1000.0, first
    while day < end:
        for q, hour in enumerate((0, 6, 12, 18)):
            ts = day + D.timedelta(hours=hour)
            if day < powers and hour: continue
            if m == 'G1' and t(3, 1) <= day < t(4, 1): continue       # read every quarter of an hour, below
            if m == 'C3' and day == t(3, 20): continue                # a day that is missing
            if m == 'D2' and t(3, 11) <= day < t(4, 1): continue      # heard on ten days of March only
            r = {'meter_id': m, 'ts': iso(ts)}
            if hour == 0: r['energy_imp_kwh'] = round(reg, 4)
            if hour == 0 and m == 'U1':
                r['reactive_imp_kvarh'] = round(reg * 0.7, 4)
            if day >= powers:
                p = kwh(m, day) * SHAPE[m[0]][q] / 8 / 6
                r.update(reading_kind='instant', interval_s=21600, p_kw=round(p, 6), collected_ts=iso(ts + D.timedelta(minutes=5)), ingest_ts=iso(ts + D.timedelta(minutes=6)))
                r['u_a_v'] = 220.0
                if m == 'U1': r.update(u_b_v=220.0, u_c_v=220.0, i_a_a=round(p * 1.5, 3), i_b_a=round(p * 1.5, 3), i_c_a=round(p * 1.5, 3))
                if m in ('C1', 'C2', 'C3', 'C4', 'D1', 'D2'): r['i_a_a'] = round(p * 1000 / 220, 3)
                if m == 'C1' and hour == 18 and t(3, 1) <= day < t(3, 11): r['u_a_v'] = 240.0     # 10 above +7 % = 235.4
                if m == 'C2' and hour == 18 and t(3, 1) <= day < t(3, 3): r['u_a_v'] = 197.9      # 2 below -10 % = 198
                if m == 'C2' and hour == 18 and day == t(3, 3): r['u_a_v'] = 198.0                # equal to the limit: inside
                if m == 'C4' and hour == 6 and day == t(3, 5): r['u_a_v'] = 0.0                   # outage
            # Condition of the meters: battery low (bit 2) at C4 from 10 March, at D1 for a week; all others say 0 once.
            if day == t(3, 1) and hour == 0: r['status_word'] = 0
            if m == 'C4' and day == t(3, 10) and hour == 0: r['status_word'] = 4
            if m == 'D1' and day == t(3, 2) and hour == 6: r['status_word'] = 4
            if m == 'D1' and day == t(3, 9) and hour == 6: r['status_word'] = 0
            readings.append(r)
        reg += kwh(m, day)
        day += DAY
# Gate of transformer TA (200 kVA) every quarter of an hour of March: 40 kW; from 1 to 10 March from 18:00 to 22:00 180 kW (90 %),
# on 15 March from 18:00 to 21:00 210 kW (105 %). Phase currents 100, 60, 80 A while at 40 kW.
reg = 1000.0 + 38 * (t(3, 1) - first).days
ts = t(3, 1)
while ts < t(4, 1):
    p, i = 40, (100, 60, 80)
    if t(3, 1) <= ts < t(3, 11) and 18 <= ts.hour < 22: p, i = 180, (300, 260, 280)
    if t(3, 1, 18) <= ts < t(3, 1, 22): i = (300, 160, 280)           # uneven until the next loaded quarter, 2 March 18:00
    if t(3, 15, 18) <= ts < t(3, 15, 21): p, i = 210, (350, 310, 330)
    r = {'meter_id': 'G1', 'ts': iso(ts), 'reading_kind': 'instant', 'interval_s': 900, 'p_kw': p, 'q_kvar': 0, 'i_a_a': i[0], 'i_b_a': i[1], 'i_c_a': i[2]}
    if ts.hour == 0 and ts.minute == 0: r['energy_imp_kwh'] = round(reg, 4); reg += 38
    readings.append(r); ts += D.timedelta(minutes=15)
# Q1: class A values of ten minutes, 10 kV, one week from Monday 2 March 00:00 UTC, stamped at the end of the interval.
# 60 intervals 10.2 % high: 94.05 % inside. THD 3 %, of phase A 4.5 % in every tenth. Pst 0.6, in one block of two hours 1.2.
w = D.datetime(2026, 3, 2, tzinfo=U)
for n in range(1008):
    ts = w + D.timedelta(minutes=10 * (n + 1))
    readings.append({'meter_id': 'Q1', 'ts': iso(ts), 'reading_kind': 'interval', 'interval_s': 600, 'agg_basis': 'agg_10min_class_a',
        'u_ab_v': 110.2 if n < 60 else 100.0, 'u_bc_v': 110.2 if n < 60 else 100.0, 'u_ca_v': 110.2 if n < 60 else 100.0, 'freq_hz': 50.0, 'thd_u_a_pct': 4.5 if n % 10 == 0 else 3.0,
        'thd_u_b_pct': 3.0, 'thd_u_c_pct': 3.0, 'pst': 1.2 if 12 <= n < 24 else 0.6})
late = [{'meter_id': 'D2', 'ts': iso(t(3, 30, 6)), 'reading_kind': 'instant', 'interval_s': 21600, 'p_kw': 0.4, 'u_a_v': 220.0, 'collected_ts': iso(t(4, 1, 20)), 'ingest_ts': iso(t(4, 1, 20))},
        {'meter_id': 'D2', 'ts': iso(t(3, 30, 12)), 'reading_kind': 'instant', 'interval_s': 21600, 'p_kw': 0.2, 'u_a_v': 220.0, 'collected_ts': iso(t(4, 1, 20)), 'ingest_ts': iso(t(4, 1, 20))},
        '{"meter_id":"C1","ts":"1970-01-01T00:00:00Z","p_kw":1}', '{"meter_id":"C1","ts":"2026-03-31T', '{"ts":"2026-03-31T00:00:00Z","p_kw":1}']
write('readings.ndjson', readings, 'ts', late, gz=True)

# Events: two outages on F1, one of which is short, one on F2, dips at Q1; the cover of C2.
E = []
def event(m, ts, code, **more): E.append({'meter_id': m, 'start_ts': iso(ts), 'event_code': code, **more})
for m in ('G1', 'U1'):
    event(m, t(3, 5, 6), 'power_off'); event(m, t(3, 5, 7, 30), 'power_on')       # 90 min, 101 customers
event('U1', t(3, 12, 10), 'power_off'); event('U1', t(3, 12, 10, 2), 'power_on')  # 2 min: short
event('G2', t(3, 20, 22), 'power_off'); event('G2', t(3, 20, 22, 45), 'power_on') # 45 min, 50 customers
event('Q1', t(3, 4, 9), 'voltage_dip', phase='abc', residual_pct=65.0, duration_ms=120)
event('Q1', t(3, 18, 9), 'voltage_dip', phase='a', residual_pct=85.0, duration_ms=300)
event('U1', t(3, 18, 9), 'voltage_dip', phase='abc', residual_pct=45.0, duration_ms=400)
event('C2', t(3, 9, 2), 'cover_open')
write('events.ndjson', E, 'start_ts')

# Concentrators: K1 (vendor Alpha, V1, 4g), K2 (Beta, V2, plc), K3 (Beta, V1, plc); every six hours on 1 to 7 March.
M = []
for day in range(1, 8):
    for hour in (0, 6, 12, 18):
        for k, ok, mode in (('K1', 100, '4g'), ('K2', 90, 'plc'), ('K3', 99, 'plc')):
            if k == 'K3' and day == 7: continue
            ts = t(3, day, hour)
            M.append({'device_id': k, 'ts': iso(ts), 'metric_name': 'core', 'device_type': 'concentrator', 'online': not (k == 'K2' and hour == 18),
                      'collect_expected': 100, 'collect_ok': ok, 'firmware': {'K1': 'V1', 'K2': 'V2', 'K3': 'V1'}[k], 'tags': {'comm_mode': mode}})
write('devices.ndjson', M, 'ts')

# Business: reads, bills and payments of February and March; applications, repairs and complaints.
T, n = [], 0
def txn(case, process, step, ts, **more):
    global n; n += 1
    T.append({'case_id': case, 'process_type': process, 'step': step, 'event_ts': iso(ts), 'txn_id': f'X{n:04}', **more})
PRICE = 0.5469                                    # first tier of `residential`
org = lambda m: 'org-west' if m[0] == 'D' else 'org-east'
for period, days, read, bill in (('2026-02', 28, t(3, 1), t(3, 3, 9)), ('2026-03', 31, t(4, 1), t(4, 1, 9))):
    for m in ('C1', 'C2', 'C3', 'C4', 'D1', 'D2'):
        if m == 'D2' and period == '2026-03': continue                  # not read: not billed
        first_day = t(2, 1) if period == '2026-02' else t(3, 1)
        energy = sum(kwh(m, first_day + i * DAY) for i in range(days))
        from decimal import Decimal as N, ROUND_HALF_UP
        e = N(energy)
        amount = (min(e, N(210)) * N('0.5469') + max(min(e, N(400)) - 210, N(0)) * N('0.5969') + max(e - 400, N(0)) * N('0.8469')).quantize(N('0.01'), ROUND_HALF_UP)
        if (m, period) == ('C3', '2026-02'): amount += N('2.51')        # billed too much
        if (m, period) == ('C4', '2026-03'): amount = N('0.00')         # nothing billed
        who = dict(org_id=org(m), meter_id=m, account_id='A-' + m, customer_id='P-' + m, bill_period=period)
        txn(f'R-{m}-{period}', 'meter_read', 'read_done', read + D.timedelta(hours=8), **who)
        if (m, period) == ('D1', '2026-03'): continue                   # read, not billed
        txn(f'B-{m}-{period}', 'billing', 'bill_issued', bill, bill_id=f'B-{m}-{period}', kwh=energy, amount=float(amount), tariff_id='residential', **who)
        if (m, period) in (('C1', '2026-02'), ('C2', '2026-02'), ('D1', '2026-02')):
            txn(f'B-{m}-{period}', 'payment', 'payment_received', bill + D.timedelta(days=10), bill_id=f'B-{m}-{period}', payment_id=f'P-{m}-{period}', amount=float(amount), channel='app', **who)
        if (m, period) == ('C3', '2026-02'):
            txn(f'B-{m}-{period}', 'payment', 'payment_received', bill + D.timedelta(days=20), bill_id=f'B-{m}-{period}', payment_id=f'P-{m}-{period}', amount=100.00, channel='counter', **who)
# U1, two parts: basic 480*38.40 = 18432.00, energy 29760*0.65 = 19344.00, power factor 0.82 at 0.90: +4 % of both = 1511.04,
# funds 29760*0.0272 = 809.47: 40096.51; billed 40000.00.
who = dict(org_id='org-east', meter_id='U1', account_id='A-U1', customer_id='P-U1', bill_period='2026-03')
txn('R-U1-2026-03', 'meter_read', 'read_done', t(4, 1, 8), **who)
txn('B-U1-2026-03', 'billing', 'bill_issued', t(4, 1, 10), bill_id='B-U1-2026-03', kwh=29760, amount=40000.00, tariff_id='industrial_two_part',
    attrs={'demand_kw': '480', 'energy_amount': '19344.00', 'kvarh_imp': '20832'}, period_start=iso(t(3, 1)), period_end=iso(t(4, 1)), **who)
# The February bill of D2 was issued twice, under another number.
txn('B-D2-2026-02b', 'billing', 'bill_issued', t(3, 4, 9), bill_id='B-D2-2026-02b', kwh=280, amount=156.63, tariff_id='residential', org_id='org-west', meter_id='D2', account_id='A-D2', customer_id='P-D2', bill_period='2026-02')
# Applications of low voltage, 5 working days from apply to energize. N1 took 2 (Mon to Wed), N2 took 8 (Mon to Thu of the week after), N3 is open since 25 March.
for case, steps, o in (('N1', [('apply', t(3, 2, 9)), ('survey', t(3, 2, 15)), ('install', t(3, 3, 9)), ('energize', t(3, 4, 9))], 'org-east'),
                       ('N2', [('apply', t(3, 2, 10)), ('survey', t(3, 11, 10)), ('install', t(3, 11, 15)), ('energize', t(3, 12, 10))], 'org-west'),
                       ('N3', [('apply', t(3, 25, 9)), ('survey', t(3, 26, 9))], 'org-west')):
    for step, ts in steps:
        more = {'attrs': {'sla_class': 'residential'}} if step == 'apply' else {}
        if (case, step) == ('N3', 'survey'): more['due_ts'] = iso(t(3, 28, 9))
        txn(case, 'new_connection_lv', step, ts, org_id=o, customer_id='P-' + case, **more)
# Repairs, urban, on site within 45 minutes: W1 40 min, W2 60 min, W3 45 min (equal: in time).
for case, arrive, o in (('W1', 40, 'org-east'), ('W2', 60, 'org-east'), ('W3', 45, 'org-west')):
    at = t(3, 6, 9)
    txn(case, 'work_order', 'report', at, org_id=o, attrs={'sla_class': 'urban'})
    txn(case, 'work_order', 'dispatch', at + D.timedelta(minutes=10), org_id=o)
    txn(case, 'work_order', 'arrive', at + D.timedelta(minutes=arrive), org_id=o)
    txn(case, 'work_order', 'repair', at + D.timedelta(minutes=arrive + 30), org_id=o)
    txn(case, 'work_order', 'close', at + D.timedelta(minutes=arrive + 60), org_id=o, attrs={'photo_id': '1', 'position': '1', 'meter_id': '1'})
# An inspection that followed the opened cover of C2 two days later.
for step, h in (('report', 10), ('dispatch', 11), ('arrive', 12), ('repair', 13), ('close', 14)):
    txn('W4', 'work_order', step, t(3, 11, h), org_id='org-east', meter_id='C2', attrs={'photo_id': '1', 'position': '1', 'meter_id': '1'})
txn('END', 'note', 'end_of_data', t(4, 2, 12), org_id='org-east')
write('transactions.ndjson', T, 'event_ts', ['not json'])
