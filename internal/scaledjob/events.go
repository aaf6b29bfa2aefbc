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
	reasonDeleted          = "ScaledJobDeleted"
	reasonUpdateFailed     = "ScaledJobUpdateFailed"
	reasonScalersStarted   = "KEDAScalersStarted"
	reasonScalersStopped   = "KEDAScalersStopped"
	reasonScalerFailed     = "KEDAScalerFailed"
	reasonJobsCreated      = "KEDAJobsCreated"
	reasonJobCreateFailed  = "KEDAJobCreateFailed"
	reasonRolloutStarted   = "ScaledJobRolloutCleanupStarted"
	reasonRolloutCompleted = "ScaledJobRolloutCleanupCompleted"
	reasonRolloutFailed    = "ScaledJobRolloutCleanupFailed"
	// What follows is ours, for items that are delivered by claim.
	reasonItemsBuried  = "ItemsBuried"
	reasonItemsDropped = "ItemsDropped"
	reasonClaimFailed  = "ClaimFailed"
	// What follows is ours, for limits.
	reasonLimited         = "JobsLimited"
	reasonNotLimited      = "NotLimited"
	reasonPriorityInvalid = "PriorityInvalid"
	reasonFallback        = "FallbackExists"
	reasonNoFallback      = "NoFallbackFound"
	// reasonJobsUnknown is ours: KEDA takes a failed list of Jobs for an empty one.
	reasonJobsUnknown = "JobsUnknown"
)
