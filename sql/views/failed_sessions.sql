-- failed_sessions: the sessions that could not be scored, and why
-- grain: one row per session with ok = false
-- columns:
--   session_id    as in the results
--   user_id       as in the results
--   completed_at  timestamp
--   error_stage   text  the stage that refused it
--   error_code    text  stable: missing_rank, rank_out_of_range, not_a_permutation, …
--   error         text  a sentence that names the item
SELECT session_id, user_id, completed_at, error_stage, error_code, error
FROM results
WHERE NOT ok
