package api

// Routes of the files in VMs that do not run; those of running ones travel by the VM's machine socket.
const (
	RouteVMFiles = "GET /v1/vms/{ref}/files"
	RouteVMLend  = "POST /v1/vms/{ref}/lend"
)

// Query parameters of [RouteVMFiles].
const (
	PathParam   = "path"   // absolute, in the VM
	FollowParam = "follow" // whether to follow a symbolic link that path is
)
