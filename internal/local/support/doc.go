// Package support tells what running a Job on one machine, as processes of the operating system, cannot honour.
//
// Every field of a Job's specification has one of three answers. It is honoured; or it is ignored and the user is told
// so once, because it only places, hardens or accounts for a container; or it is refused with what to do about it,
// because the program would otherwise not see what its manifest promises. A field that is new in Kubernetes and that
// nobody has thought about is refused.
//
// The package only judges. Whether a value is valid at all is checked by internal/manifest, and containers are run by
// internal/local/pods.
package support
