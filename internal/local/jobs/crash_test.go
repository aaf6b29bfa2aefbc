package jobs

func createUntilKilled(dir string) {}

const crashDirVar = "OFFBOARD_TEST_CRASH_DIR"
