-- team_rollup: each team's sessions and where the team stands on the grid
-- grain: one row per team
-- needs: team_id
-- columns:
--   team_id         as in the results
--   sessions        bigint  all sessions, failed ones too
--   failed          bigint  sessions that could not be scored
--   users           bigint  different users of the scored sessions
--   mean_acce       double
--   mean_aero       double
--   mean_lfi        double
--   styles          bigint  different learning styles
--   main_style      text    the most frequent style; of several the first by name
--   main_style_share double  of the team's scored sessions, 0 to 1
WITH styles AS (
    SELECT
        team_id,
        style,
        count(*) AS sessions,
        row_number() OVER (PARTITION BY team_id ORDER BY count(*) DESC, style) AS place
    FROM results
    WHERE ok AND team_id IS NOT NULL
    GROUP BY team_id, style
),
teams AS (
    SELECT
        team_id,
        count(*) AS sessions,
        count(CASE WHEN NOT ok THEN 1 END) AS failed,
        count(CASE WHEN ok THEN 1 END) AS scored,
        count(DISTINCT CASE WHEN ok THEN user_id END) AS users,
        avg(CAST(acce AS DOUBLE)) AS mean_acce,
        avg(CAST(aero AS DOUBLE)) AS mean_aero,
        avg(lfi) AS mean_lfi,
        count(DISTINCT style) AS styles
    FROM results
    WHERE team_id IS NOT NULL
    GROUP BY team_id
)
SELECT
    teams.team_id,
    teams.sessions,
    teams.failed,
    teams.users,
    teams.mean_acce,
    teams.mean_aero,
    teams.mean_lfi,
    teams.styles,
    styles.style AS main_style,
    CAST(styles.sessions AS DOUBLE) / teams.scored AS main_style_share
FROM teams
LEFT JOIN styles ON styles.team_id = teams.team_id AND styles.place = 1
