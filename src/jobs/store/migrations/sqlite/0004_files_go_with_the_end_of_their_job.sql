-- A job that has ended shows its files in its details. What they counted is freed by upkeep.
CREATE TRIGGER files_go_with_the_end_of_their_job AFTER UPDATE OF state ON jobs
    WHEN NEW.state IN ('succeeded', 'failed', 'cancelled')
BEGIN
    DELETE FROM files WHERE job_id = NEW.id;
END;
