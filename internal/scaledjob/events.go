package scaledjob

// Reasons of events and conditions, as users and their alerts know them from KEDA.
const (
	reasonReady            = "ScaledJobReady"
	reasonCheckFailed      = "ScaledJobCheckFailed"
	reasonTriggerError     = "TriggerError"
	reasonPartialError     = "PartialTriggerError"
	reasonPaused           = "ScaledJobPaused"
	reasonUnpaused         = "ScaledJobUnpaused"
	reasonActive           = "ScaledJobActive"
	reasonInactive         = "ScaledJobInactive"
	reasonScalerActive     = "ScalerActive"
	reasonScalerNotActive  = "ScalerNotActive"
	reasonUnknownState     = "UnknownState"
	reasonScalerFailed     = "KEDAScalerFailed"
	reasonJobsCreated      = "KEDAJobsCreated"
	reasonJobCreateFailed  = "KEDAJobCreateFailed"
	reasonRolloutStarted   = "ScaledJobRolloutCleanupStarted"
	reasonRolloutCompleted = "ScaledJobRolloutCleanupCompleted"
	reasonRolloutFailed    = "ScaledJobRolloutCleanupFailed"
	// reasonJobsUnknown is ours: KEDA takes a failed list of Jobs for an empty one.
	reasonJobsUnknown = "JobsUnknown"
)
