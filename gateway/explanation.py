"""Explaining a request: what would come of it, without sending anything.

It asks the same functions that the exchange does, and shows what they say: the route, the plan with its scores, what was left out,
what would be reserved, and what is left. Nothing is claimed, no turn is taken and no breaker is moved. Above is AdminService.
"""

from collections.abc import Callable

from twinspan.v1 import explain_pb2

from gateway.access.keys import Principal
from gateway.asking import Caller, Operation
from gateway.attempt import Attempt
from gateway.errors import GatewayError
from gateway.exchange import reserve_of, route_of, seconds_of
from gateway.limits.limiter import Limiter
from gateway.limits.scopes import HOST, Scope, scopes_of
from gateway.routing.breaker import BreakerState
from gateway.routing.catalogue import Catalogue, Route
from gateway.routing.plan import ASSUMED_OUTPUT, Plan, Planner, nothing_to_try
from gateway.state.claims import MICRO, Amount, Claim, Place
from gateway.state.store import StoreError


class Explainer:
    """Explains requests."""

    def __init__(self, catalogue: Callable[[], Catalogue], planner: Planner, limiter: Limiter, clock: Callable[[], float]) -> None:
        """Makes one over what the exchange decides with.

        Args:
            catalogue: Returns the catalogue of the configuration that holds now.
            planner: Makes plans.
            limiter: Knows what is left.
            clock: The planner's clock, in seconds.
        """
        self._catalogue = catalogue
        self._planner = planner
        self._limiter = limiter
        self._clock = clock

    async def explain(self, operation: Operation[Attempt], caller: Caller) -> explain_pb2.ExplainResponse:
        """Returns what would come of a request.

        Raises:
            GatewayError: It is no request that could be sent anywhere.
        """
        operation.check(trusted=caller.trusted)
        response = explain_pb2.ExplainResponse(caller=_caller(caller.principal))
        size = operation.size()
        response.input_tokens = size.input_tokens
        response.output_tokens = size.output_tokens or ASSUMED_OUTPUT
        catalogue = self._catalogue()
        try:
            route = route_of(catalogue, operation, caller)
            response.timeout_seconds = seconds_of(route, caller)
        except GatewayError as error:
            _refuse(response, error)
            return response
        response.model = route.name
        response.is_agent = route.agent is not None
        response.strategy = route.agent.strategy if route.agent is not None else catalogue.rules.routing_strategy
        response.reserved_usd = reserve_of(route, operation)
        turn = self._planner.state.turns.get(route.name, 0)
        plan = self._planner.plan(route, catalogue.rules, operation, self._clock(), turn=turn)
        self._show(response, route, plan, size.input_tokens)
        await self._show_limits(response, route, operation, caller)
        if not plan.targets and not response.HasField("refusal"):
            _refuse(response, nothing_to_try(route, plan))
        return response

    def _show(self, response: explain_pb2.ExplainResponse, route: Route, plan: Plan, input_tokens: int) -> None:
        state = self._planner.state
        for target, score in zip(plan.targets, plan.scores, strict=True):
            latency = state.latencies.get(target.key)
            breaker = state.breakers.get(target.key)
            moved = breaker.state if breaker is not None else BreakerState.CLOSED
            response.targets.add(
                provider=target.provider.name,
                model=target.model,
                score=score,
                estimated_usd=target.estimated_usd(input_tokens, response.output_tokens),
                latency_seconds=latency.seconds if latency is not None else None,
                busy=state.busy.get(target.key, 0),
                breaker=moved.name.lower().replace("_", "-"),
                context_window=target.context_window,
            )
        order = {target.key: number for number, target in enumerate(route.targets)}
        for one in sorted(plan.left_out, key=lambda one: order[one.target.key]):
            response.left_out.add(
                provider=one.target.provider.name,
                model=one.target.model,
                reason=one.reason,
                message=one.message,
                wait_seconds=one.wait_seconds,
            )

    async def _show_limits(
        self, response: explain_pb2.ExplainResponse, route: Route, operation: Operation[Attempt], caller: Caller
    ) -> None:
        """Shows what is left, and whether it is enough. Without the store nobody can say, and nothing is shown."""
        own = scopes_of(caller.principal, route.agent)
        hosts = {target.provider.host: target.provider for target in route.targets if target.provider.limited}
        try:
            verdict = await self._limiter.judge(own, operation.size, lambda: response.reserved_usd, response.timeout_seconds)
            left = await self._limiter.left([*own, *(Scope(HOST, host, one.allowance) for host, one in hosts.items())])
        except StoreError:
            return
        if verdict is not None:
            _refuse(response, verdict)
        for claimed, rest in left:
            amount, unit = _limit_of(claimed.claim), MICRO if isinstance(claimed.claim, Amount) else 1
            response.limits.add(
                scope=claimed.scope.kind,
                name=claimed.scope.name,
                of=claimed.of,
                limit=amount / unit,
                left=rest.left / unit,
                renews_seconds=claimed.renews_seconds or rest.full_seconds,
            )


def _caller(principal: Principal | None) -> explain_pb2.ExplainedCaller:
    if principal is None:
        return explain_pb2.ExplainedCaller()
    caller = explain_pb2.ExplainedCaller(
        key=principal.name,
        roles=sorted(principal.roles),
        team=principal.team.name if principal.team is not None else "",
        allowed_agents=sorted(principal.allowed_agents),
        allowed_endpoints=principal.allowed_endpoints,
    )
    if principal.expires_at is not None:
        caller.expires_at = int(principal.expires_at.timestamp())
    return caller


def _refuse(response: explain_pb2.ExplainResponse, error: GatewayError) -> None:
    response.refusal.kind = error.kind_name
    response.refusal.message = error.message
    if error.retry_after is not None:
        response.refusal.retry_after_seconds = error.retry_after


def _limit_of(claim: Claim) -> int:
    return claim.most if isinstance(claim, Place) else claim.limit
