-- style_distribution: how often each learning style occurs, in all and by each demographic column that the results have
-- grain: one row per dimension, value of it and style
-- columns:
--   dimension  text    'all', or a column passed through: age_band, country, education_level, gender, team_id
--   value      text    the value of that column; 'all' for all sessions; null where a session has none
--   style      text    the learning style
--   sessions   bigint  scored sessions
--   share      double  of the scored sessions with this value, 0 to 1
WITH sessions AS (
    SELECT 'all' AS dimension, 'all' AS value, style FROM results WHERE ok
    -- if age_band
    UNION ALL SELECT 'age_band', CAST(age_band AS VARCHAR), style FROM results WHERE ok
    -- end
    -- if country
    UNION ALL SELECT 'country', CAST(country AS VARCHAR), style FROM results WHERE ok
    -- end
    -- if education_level
    UNION ALL SELECT 'education_level', CAST(education_level AS VARCHAR), style FROM results WHERE ok
    -- end
    -- if gender
    UNION ALL SELECT 'gender', CAST(gender AS VARCHAR), style FROM results WHERE ok
    -- end
    -- if team_id
    UNION ALL SELECT 'team_id', CAST(team_id AS VARCHAR), style FROM results WHERE ok
    -- end
)
SELECT
    dimension,
    value,
    style,
    count(*) AS sessions,
    CAST(count(*) AS DOUBLE) / sum(count(*)) OVER (PARTITION BY dimension, value) AS share
FROM sessions
GROUP BY dimension, value, style
