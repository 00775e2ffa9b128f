-- Scored sessions for a warehouse: one row a session that could be scored.
--
-- Grain: session. Key: session_id. Made for an export with incremental = "column:completed_at". Raw scores are sums of ranks,
-- percentiles 0 to 100, lfi 0 to 1; times are UTC.
SELECT session_id,
       user_id,
       completed_at,
       ce_raw, ro_raw, ac_raw, ae_raw,
       acce, aero,
       style,
       lfi,
       ce_percentile, ro_percentile, ac_percentile, ae_percentile, acce_percentile, aero_percentile, lfi_percentile,
       :run_at AS exported_at
FROM results
WHERE ok
