from agentark import finish
from agentark.stage.run import main

finish(main)
