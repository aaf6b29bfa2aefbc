package process

// Recorded is a container that a previous run of this program recorded when it started it.
type Recorded struct {
	// PID is Process.PID.
	PID int `json:"pid"`
	// StartID is Process.StartID.
	StartID string `json:"startID"`
}

// matches tells whether the recorded main process is still the one that has its pid.
func (r Recorded) matches() bool { return r.PID > 1 && r.StartID != "" && startID(r.PID) == r.StartID }
