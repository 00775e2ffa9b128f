-- session_deltas: each session of a user beside the user's session before it
-- grain: one row per scored session that has a user and a time; the first one of a user has null for what is before it
-- columns:
--   user_id              as in the results
--   session_id           as in the results
--   completed_at         timestamp
--   previous_session_id  as session_id
--   days                 double  between the two, with fractions
--   acce_delta           bigint  this session's ACCE less the one before it
--   aero_delta           bigint  the same of AERO
--   lfi_delta            double  the same of LFI
--   intensity_delta      bigint  the same of intensity
--   style                text
--   previous_style       text
WITH ordered AS (
    SELECT
        user_id,
        session_id,
        completed_at,
        style,
        CAST(acce AS BIGINT) AS acce,
        CAST(aero AS BIGINT) AS aero,
        CAST(intensity AS BIGINT) AS intensity,
        lfi,
        lag(session_id) OVER before AS previous_session_id,
        lag(completed_at) OVER before AS previous_at,
        lag(style) OVER before AS previous_style,
        lag(CAST(acce AS BIGINT)) OVER before AS previous_acce,
        lag(CAST(aero AS BIGINT)) OVER before AS previous_aero,
        lag(CAST(intensity AS BIGINT)) OVER before AS previous_intensity,
        lag(lfi) OVER before AS previous_lfi
    FROM results
    WHERE ok AND user_id IS NOT NULL AND completed_at IS NOT NULL
    WINDOW before AS (PARTITION BY user_id ORDER BY completed_at, session_id)
)
SELECT
    user_id,
    session_id,
    completed_at,
    previous_session_id,
    (date_part('epoch', completed_at) - date_part('epoch', previous_at)) / 86400 AS days,
    acce - previous_acce AS acce_delta,
    aero - previous_aero AS aero_delta,
    lfi - previous_lfi AS lfi_delta,
    intensity - previous_intensity AS intensity_delta,
    style,
    previous_style
FROM ordered
