package api

// Routes of the files in VMs that do not run; those of running ones travel by the VM's machine socket.
const (
	RouteVMFiles = "GET /v1/vms/{ref}/files" // ?path=/etc&follow=true → a stream as package transfer has it, which tells at its end what went wrong
	RouteVMLend  = "POST /v1/vms/{ref}/lend" // → events: progress, then VM once it runs without the image's init; the VM is stopped when the request ends
)

// Query parameters of [RouteVMFiles].
const (
	PathParam   = "path"   // absolute, in the VM
	FollowParam = "follow" // whether to follow a symbolic link that path is
)
