-- They are forgotten by their age.
CREATE INDEX expired_jobs_by_time ON expired_jobs (expired_at);
