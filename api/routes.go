package api

import (
	_ "embed"
	"reflect"

	"banger"
)

// Route says what goes into one request and what comes out. The daemon serves what is in [Routes], and nothing else.
type Route struct {
	Pattern   string // one of the Route constants
	Summary   string
	Query     []Param
	Body      reflect.Type // of the request, JSON; nil: none is read
	Answer    reflect.Type // JSON; of a stream of events, what the last of them holds; nil: Media is something else
	Events    bool         // the answer is a stream of [Event]
	Operation string       // "start vm": what the stream is of; empty: of what is no operation
	BodyMedia string       // type of a body that is not JSON
	Media     string       // type of an answer that is not JSON
	AnyClient bool         // a client of another version may ask, too
}

// Param is one parameter of a query.
type Param struct {
	Name    string
	Type    string // "boolean", "string", or "array" for strings of which each is given by itself
	Summary string
}

// OpenAPI is the description of [Routes] in OpenAPI 3.1, as JSON. It is made from the routes and from the types by
// go test ./api -update.
//
//go:embed openapi.json
var OpenAPI []byte

// Query parameters.
var (
	paramDetach  = Param{DetachParam, "boolean", "go on without the client: the answer's only event is the operation, once it has made its first step"}
	paramEnd     = Param{ForceParam, "boolean", "also while operations run: what they make is undone"}
	paramForce   = Param{ForceParam, "boolean", "stop a VM that runs first"}
	paramDiscard = Param{DiscardParam, "boolean", "keep no work that is in the VM; it means force, too"}
	paramRefs    = Param{RefParam, "array", "a VM's name, id or unique beginning of its id; none: all that run"}
	paramPath    = Param{PathParam, "string", "absolute path in the VM"}
	paramFollow  = Param{FollowParam, "boolean", "follow a symbolic link that the path is"}
)

// Types of what is no JSON.
const (
	MediaEvents = "application/x-ndjson"     // one [Event] a line
	MediaTar    = "application/x-tar"        // what goes wrong under way is in the trailer [ErrorTrailer]
	MediaFiles  = "application/octet-stream" // the format in which banger copies files: its own, and it may change
)

// Empty is an answer that says nothing but that it is done.
type Empty struct{}

// Routes are all that the daemon serves.
var Routes = []Route{
	{Pattern: RouteOpenAPI, Summary: "this document", Media: "application/json", AnyClient: true},
	{Pattern: RouteStatus, Summary: "what the daemon tells about itself", Answer: reflect.TypeFor[Status](), AnyClient: true},
	{Pattern: RouteShutdown, Summary: "end the daemon; VMs go on", Query: []Param{paramEnd}, Answer: reflect.TypeFor[Empty](), AnyClient: true},
	{Pattern: RouteSettings, Summary: "what the daemon goes by, and where it comes from", Answer: reflect.TypeFor[[]banger.Setting]()},

	operation(RouteVMCreate, "create vm", "make a VM, and start it", reflect.TypeFor[CreateRequest](), reflect.TypeFor[VMDetail]()),
	{Pattern: RouteVMList, Summary: "every VM, oldest first", Answer: reflect.TypeFor[[]banger.VM]()},
	{Pattern: RouteVMShow, Summary: "one VM", Answer: reflect.TypeFor[VMDetail]()},
	operation(RouteVMStart, "start vm", "boot a VM; the end is when its guest is ready", reflect.TypeFor[StartRequest](), reflect.TypeFor[VMDetail]()),
	operation(RouteVMStop, "stop vm", "ask the guest to power off, and kill the VMM when it does not", reflect.TypeFor[StopRequest](), reflect.TypeFor[VMDetail]()),
	operation(RouteVMRestart, "restart vm", "stop a VM and start it again", reflect.TypeFor[RestartRequest](), reflect.TypeFor[VMDetail]()),
	operation(RouteVMKill, "kill vm", "send the VMM a signal", reflect.TypeFor[KillRequest](), reflect.TypeFor[VMDetail]()),
	operation(RouteVMRename, "rename vm", "give a VM another name", reflect.TypeFor[RenameRequest](), reflect.TypeFor[VMDetail]()),
	operation(RouteVMDelete, "delete vm", "remove a VM with its disk; the answer is its last record", nil, reflect.TypeFor[VMDetail](), paramForce, paramDiscard),
	{Pattern: RouteVMResolve, Summary: "what references stand for, all at one moment", Body: reflect.TypeFor[ResolveRequest](), Answer: reflect.TypeFor[[]ResolvedVM]()},
	{Pattern: RouteVMSet, Summary: "change what a VM is", Body: reflect.TypeFor[SetRequest](), Answer: reflect.TypeFor[SetResult]()},
	{Pattern: RouteVMNet, Summary: "change what a VM's network reaches; of a running one at once", Body: reflect.TypeFor[banger.NetChange](), Answer: reflect.TypeFor[banger.VM]()},
	{Pattern: RouteVMWorkspace, Summary: "record what has gone into a VM, in place of what is recorded for its guest path", Body: reflect.TypeFor[banger.Workspace](), Answer: reflect.TypeFor[banger.VM]()},
	{Pattern: RouteVMWait, Summary: "wait until a VM has come to something; the answer is the VM then", Body: reflect.TypeFor[WaitRequest](), Answer: reflect.TypeFor[VMDetail]()},
	{Pattern: RouteVMLend, Summary: "boot a VM without the image's init for as long as the request lasts; an event tells that it runs", Answer: reflect.TypeFor[VMDetail](), Events: true},
	{Pattern: RouteVMFiles, Summary: "a file or tree of a VM that does not run", Query: []Param{paramPath, paramFollow}, Media: MediaFiles},
	{Pattern: RouteVMParts, Summary: "files of a VM that does not run, by their names", BodyMedia: MediaFiles, Media: MediaFiles},
	{Pattern: RouteStats, Summary: "what VMs use at this moment", Query: []Param{paramRefs}, Answer: reflect.TypeFor[Stats]()},

	{Pattern: RouteImageList, Summary: "every image that is ready", Answer: reflect.TypeFor[[]banger.Image]()},
	{Pattern: RouteImageShow, Summary: "one image, by its name or the beginning of its key", Answer: reflect.TypeFor[ImageDetail]()},
	operation(RouteImageImport, "import image", "make an image of what lies on the host", reflect.TypeFor[ImportRequest](), reflect.TypeFor[banger.Image]()),
	operation(RouteImagePull, "pull image", "make an image of what a registry has", reflect.TypeFor[PullRequest](), reflect.TypeFor[banger.Image]()),
	operation(RouteImageBuild, "build image", "make an image from packages", reflect.TypeFor[BuildRequest](), reflect.TypeFor[banger.Image]()),
	operation(RouteImageRegister, "register image", "make an image of a file that stays where it is", reflect.TypeFor[RegisterRequest](), reflect.TypeFor[banger.Image]()),
	operation(RouteImagePromote, "promote image", "copy the file of a registered image into the state directory", nil, reflect.TypeFor[banger.Image]()),
	operation(RouteImageBundle, "bundle image", "make a bundle of an image for a catalog", reflect.TypeFor[BundleRequest](), reflect.TypeFor[banger.CatalogImage]()),
	{Pattern: RouteImageExport, Summary: "the root file system of an image", Media: MediaTar},
	{Pattern: RouteImageDelete, Summary: "remove an image; the answer is its record", Answer: reflect.TypeFor[banger.Image]()},
	{Pattern: RouteImagePrune, Summary: "remove images that no VM uses", Body: reflect.TypeFor[PruneRequest](), Answer: reflect.TypeFor[Pruned]()},
	{Pattern: RouteCachePrune, Summary: "remove what registries gave and no pull is using", Body: reflect.TypeFor[PruneRequest](), Answer: reflect.TypeFor[Pruned]()},

	{Pattern: RouteKernelList, Summary: "every kernel that is ready", Answer: reflect.TypeFor[[]banger.Kernel]()},
	{Pattern: RouteKernelOffers, Summary: "the kernels that can be had by their name", Answer: reflect.TypeFor[[]banger.KernelOffer]()},
	{Pattern: RouteKernelShow, Summary: "one kernel, by its name", Answer: reflect.TypeFor[banger.Kernel]()},
	operation(RouteKernelImport, "import kernel", "make a kernel of what lies on the host", reflect.TypeFor[ImportKernelRequest](), reflect.TypeFor[banger.Kernel]()),
	operation(RouteKernelPull, "pull kernel", "fetch a kernel that can be had by its name, unless it is there", reflect.TypeFor[PullKernelRequest](), reflect.TypeFor[banger.Kernel]()),
	operation(RouteKernelBundle, "bundle kernel", "make a bundle of a kernel for a catalog", reflect.TypeFor[BundleRequest](), reflect.TypeFor[banger.CatalogKernel]()),
	{Pattern: RouteKernelDelete, Summary: "remove a kernel; the answer is its record", Answer: reflect.TypeFor[banger.Kernel]()},
	{Pattern: RouteCatalog, Summary: "the index of the configured catalog", Answer: reflect.TypeFor[banger.Catalog]()},

	{Pattern: RouteSaveList, Summary: "the work of deleted VMs, oldest first", Answer: reflect.TypeFor[[]banger.Autosave]()},
	{Pattern: RouteSaveLanded, Summary: "note that the refs of an autosave are in the host's repository", Answer: reflect.TypeFor[banger.Autosave]()},
	{Pattern: RouteSavePrune, Summary: "remove old autosaves; the answer is those that are gone, or would go", Body: reflect.TypeFor[PruneSavesRequest](), Answer: reflect.TypeFor[[]banger.Autosave]()},

	{Pattern: RouteOperationList, Summary: "operations that run, and the last of those that ended, oldest first", Answer: reflect.TypeFor[[]Operation]()},
	{Pattern: RouteOperationShow, Summary: "one operation", Answer: reflect.TypeFor[Operation]()},
	{Pattern: RouteOperationFollow, Summary: "the events that the client who asked for an operation gets", Events: true, Answer: reflect.TypeFor[Event]()},
	{Pattern: RouteOperationCancel, Summary: "end an operation; the answer comes when what it made is undone", Answer: reflect.TypeFor[Operation]()},
}

// operation is a route whose answer is the events of an operation.
func operation(pattern, kind, summary string, body, answer reflect.Type, query ...Param) Route {
	return Route{Pattern: pattern, Summary: summary, Body: body, Answer: answer, Events: true, Operation: kind, Query: append(query, paramDetach)}
}
