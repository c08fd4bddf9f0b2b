package banger

import "context"

type operationKey struct{}

// WithOperation gives a context the id of the operation that it belongs to ("op-…"): every log line and error carries it.
func WithOperation(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, operationKey{}, id)
}

// OperationOf gives the id of the operation that ctx belongs to, or "".
func OperationOf(ctx context.Context) string {
	id, _ := ctx.Value(operationKey{}).(string)
	return id
}
