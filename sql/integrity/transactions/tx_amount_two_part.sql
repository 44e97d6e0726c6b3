/*---
id          = "tx_amount_two_part"
kind        = "alert"
title       = "Bill of two parts is not basic fee, energy, power factor adjustment and funds"
title_zh    = "两部制电费核算不符"
severity    = "critical"
entity      = "bill_id"
category    = "business"
unit        = "yuan"
standard    = "internal"
owner       = "billing"
description = """
Recomputes the total of each bill under a tariff of `tariffs_two_part`: the basic fee is the demand times its price; to
it and to the energy charge comes the adjustment for the power factor, in percent of both; government funds are by energy
and not adjusted. Each of the four is rounded half up to a cent, as it is a line of the bill. The power factor is active
over apparent energy, in which reactive energy of both directions adds up, rounded to 2 decimals before it is looked up in
`pf_adjustments` for the tariff's standard. The bill carries its demand, energy charge and reactive energies in the
attributes `demand_kw`, `energy_amount`, `kvarh_imp` and `kvarh_exp` (missing: 0). A difference of up to
`tolerance_yuan`, that included, is accepted. Verdict `insufficient_data` (says nothing) without one of these, or without
energy. Tariff and table are those of the end of the period, else of the bill. A corrected bill under the same number
resolves. Not seen: whether demand and energy charge are right themselves (tx_amount_tou, pq_demand_over_contract).
"""
params      = { tolerance_yuan = 0.01, process = "billing", step = "bill_issued" }
---*/
WITH bills AS (
    SELECT
        *,
        coalesce(period_end - INTERVAL '1 microsecond', event_ts) AS to_ts,
        TRY_CAST(attrs['demand_kw'] AS DECIMAL(14, 4)) AS demand_kw,
        TRY_CAST(attrs['energy_amount'] AS DECIMAL(16, 2)) AS energy_amount,
        TRY_CAST(attrs['kvarh_imp'] AS DOUBLE) + coalesce(TRY_CAST(attrs['kvarh_exp'] AS DOUBLE), 0) AS kvarh
    FROM business_transactions
    WHERE process_type = $process AND step = $step AND bill_id IS NOT NULL AND amount IS NOT NULL
),
factors AS (
    SELECT
        b.*,
        t.demand_price,
        t.fund_per_kwh,
        t.pf_standard,
        CASE WHEN b.kwh > 0 THEN
            TRY_CAST(
                CAST(b.kwh AS DOUBLE) / sqrt(CAST(b.kwh AS DOUBLE) * CAST(b.kwh AS DOUBLE) + b.kvarh * b.kvarh)
                AS DECIMAL(3, 2)
            )
        END AS power_factor
    FROM bills b
    JOIN tariffs_two_part t
        ON t.tariff_id = b.tariff_id
        AND (t.valid_from IS NULL OR t.valid_from <= b.to_ts) AND (t.valid_to IS NULL OR b.to_ts < t.valid_to)
),
lines AS (
    SELECT
        f.*,
        a.adjustment_pct,
        CAST(f.demand_kw * f.demand_price AS DECIMAL(18, 2)) AS basic_amount,
        CAST(f.kwh * f.fund_per_kwh AS DECIMAL(18, 2)) AS fund_amount
    FROM factors f
    LEFT JOIN pf_adjustments a
        ON a.pf_standard = f.pf_standard AND a.power_factor = f.power_factor
        AND (a.valid_from IS NULL OR a.valid_from <= f.to_ts) AND (a.valid_to IS NULL OR f.to_ts < a.valid_to)
),
charged AS (
    SELECT *, CAST((basic_amount + energy_amount) * adjustment_pct / 100 AS DECIMAL(18, 2)) AS adjustment_amount
    FROM lines
),
totals AS (
    SELECT *, basic_amount + energy_amount + adjustment_amount + fund_amount AS expected_amount
    FROM charged
)
SELECT
    bill_id,
    event_ts,
    abs(amount - expected_amount) > $tolerance_yuan AS firing,
    CASE
        WHEN expected_amount IS NULL THEN 'insufficient_data'
        WHEN abs(amount - expected_amount) > $tolerance_yuan THEN 'wrong'
        ELSE 'right'
    END AS verdict,
    amount AS measured,
    expected_amount - $tolerance_yuan AS limit_low,
    expected_amount + $tolerance_yuan AS limit_high,
    'yuan' AS unit,
    amount - expected_amount AS difference_yuan,
    expected_amount,
    basic_amount,
    energy_amount,
    adjustment_amount,
    fund_amount,
    adjustment_pct,
    power_factor,
    pf_standard,
    demand_kw,
    kwh,
    kvarh,
    tariff_id,
    account_id,
    customer_id
FROM totals
