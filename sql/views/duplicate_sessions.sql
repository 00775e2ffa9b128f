-- duplicate_sessions: session ids that occur more than once; they are legal and kept
-- grain: one row per session id with several sessions
-- columns:
--   session_id  as in the results
--   copies      bigint     sessions with this id
--   scored      bigint     of these, the scored ones
--   users       bigint     different users of them
--   styles      bigint     different styles of them: more than one and the copies contradict each other
--   first_at    timestamp  the earliest completed_at
--   last_at     timestamp  the latest
SELECT
    session_id,
    count(*) AS copies,
    count(CASE WHEN ok THEN 1 END) AS scored,
    count(DISTINCT user_id) AS users,
    count(DISTINCT style) AS styles,
    min(completed_at) AS first_at,
    max(completed_at) AS last_at
FROM results
WHERE session_id IS NOT NULL
GROUP BY session_id
HAVING count(*) > 1
